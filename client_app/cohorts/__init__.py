"""Cohorts: several small clients of one process trained in one step."""
