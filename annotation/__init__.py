"""The data side of FaceLLM Studio: images, generated pairs, decisions, snapshots and their tabs."""
