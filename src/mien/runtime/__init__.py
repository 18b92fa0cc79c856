"""Recognition without torch: onnxruntime and OpenCV."""
