"""The service: Twisted carries bytes, threads do the disk, the broker decides."""
