"""Reading and writing of videos, with the time of every frame and all tracks."""
