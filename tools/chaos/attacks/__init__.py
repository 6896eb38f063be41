"""The attacks of the fault suite: do other clients still get answers, and does memory stay within its limits?"""
