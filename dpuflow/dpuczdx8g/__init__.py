"""The DPUCZDX8G family: machine code, the compiler that writes it, its cost."""
