"""What a data set is like, and the command to start with.

facts.py        what is known of a data set: plain values
measuring.py    a data module -> facts
label_noise.py  an estimate of how many labels are wrong
rules.py        facts -> advice, a pure function
"""
