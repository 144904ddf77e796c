"""What goes wrong: killed servers, lost lines, broken disks, hostile clients; and whether the promises hold."""
