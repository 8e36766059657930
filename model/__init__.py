"""Who decides: text, encoder, attention, shortlister, reranker, statistics, training, evaluation, bundle."""
