"""Images that no disk holds: chunks in LitData's format, in a folder or at an S3 address. No LitData until it is used.

stream.json, beside the folders train, val and test, describes the images and has the size and SHA-256 of every other
file. LitData writes the chunks and decodes the samples in them. The order, and which chunks are kept on the disk, are
decided here: see StreamImages.
"""
