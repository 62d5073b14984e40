"""What servers and streams tell Prometheus: counted in memory that workers share, written in its text format."""
