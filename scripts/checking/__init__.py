"""Parts of scripts/check_dataset.py: scenes that two sets share, versions of public sets."""
