"""queueber.testing"""
