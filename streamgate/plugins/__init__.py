"""The nine services. Plugins never import each other; they meet through contracts."""
