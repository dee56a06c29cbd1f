"""queueber.broker"""
