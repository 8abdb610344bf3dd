"""HTTP connections, for downloads and for servers with models: addresses, proxies, certificates."""
