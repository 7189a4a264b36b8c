"""How the open head is made from MakeHuman's CC0 files; see docs/open_head.md."""
