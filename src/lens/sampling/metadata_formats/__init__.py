"""What image generation tools write into image files, in the forms that each of them has."""
