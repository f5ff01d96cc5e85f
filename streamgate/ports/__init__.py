"""What plugins may ask of the world: each port an abstract class, its adapters held to one conformance suite."""
