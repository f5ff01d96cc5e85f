"""What tests share: clocks, films, chains, servers, browsers."""
