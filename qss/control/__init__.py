"""Control: JSON-RPC 2.0 in lines over a unix socket. The methods of each process are tables in `qss.app`."""
