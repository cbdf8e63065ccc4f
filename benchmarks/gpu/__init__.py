"""What is done on a machine with a GPU; start with checklist.sh."""
