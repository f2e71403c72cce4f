"""Sources of data: one file each; where it comes from, how it is verified, how it is read.

No episodes here.
"""
