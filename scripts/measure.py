"""Measure a folder of restored images. The same as the command derain-measure."""

from basicsr.measure import main

if __name__ == "__main__":
    main()
