"""What checks know of languages: quotation marks, numbers, colours, scripts, function words, talk."""
