"""queueber.store"""
