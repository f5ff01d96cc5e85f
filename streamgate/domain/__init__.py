"""The words of the business: errors, identity, assets, policies. No I/O happens here."""
