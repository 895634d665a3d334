"""Parts of scripts/prepare.py: what each set consists of, and how its images are cut."""
