"""Trust anchors of tests."""


def root_certificate(identity):
    """Return the last certificate of an identity as PEM: readers that trust it trust the signature."""
    head = b"-----BEGIN CERTIFICATE-----"
    return head + identity.chain.rpartition(head)[2]
