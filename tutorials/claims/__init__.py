"""The experiments of tutorial 3, one file for each group of claims.

Each is a plain function that returns its numbers. What has no random draws is computed in double
precision, by closed forms or by sums over a grid.
"""
