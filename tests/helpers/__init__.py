"""Helpers of the tests: stand-ins, servers and studies that several of them share."""
