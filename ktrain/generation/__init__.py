"""Generation of bioR biographies by a language model: prompts, models, drafts."""
