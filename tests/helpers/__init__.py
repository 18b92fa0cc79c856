"""What tests share: small indexes and studies, simulated predictions."""
