"""Label review: people decide about the labels that an audit doubts, and their data is written anew with the decisions.

Everything here is done on the machine that holds the data. Nothing is sent anywhere.
"""
