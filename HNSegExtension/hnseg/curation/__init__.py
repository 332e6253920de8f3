"""Curation: from folders of CT, MR and masks to a data set that can be trusted."""
