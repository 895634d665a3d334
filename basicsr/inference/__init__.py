"""Restoring single images, and files of photographs and videos."""
