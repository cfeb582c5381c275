"""What is in the data set, what it cost, and which groups stand out."""
