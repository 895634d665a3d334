"""The web page of `basicsr.app`: its layout, its files, and the process that restores."""
