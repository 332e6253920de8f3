"""The published systems' networks that MONAI lacks, and the adapter that lets 2D networks work on volumes."""
