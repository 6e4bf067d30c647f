"""Models behind HTTP: the Open Inference Protocol, images in and masks out, a page, metrics. Imported only when they are served."""
