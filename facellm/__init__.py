"""The model side of FaceLLM Studio: data records, models, training, evaluation and their tabs."""
