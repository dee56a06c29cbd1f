"""queueber.wire"""
