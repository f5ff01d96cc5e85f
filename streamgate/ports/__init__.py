"""What plugins may ask of the world. Each port is an abstract class with at least an embedded adapter, held to one conformance suite."""
