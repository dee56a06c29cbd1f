"""queueber.cli"""
