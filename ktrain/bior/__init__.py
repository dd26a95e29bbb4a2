"""bioR: biographies in free text, each verified against the six facts of its person (paper, appendix A.1)."""
