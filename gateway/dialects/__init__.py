"""The formats that clients speak: each folder parses one, calls tools or core once, and renders the reply."""
