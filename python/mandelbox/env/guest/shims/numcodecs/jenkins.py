"""Stand-in for numcodecs.jenkins."""


def jenkins_lookup3(*args):
    raise NotImplementedError("the checksum jenkins_lookup3 is not available in the sandbox")
