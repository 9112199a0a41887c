"""One trainer for every lab, and the parts it is made of."""
