"""Studies with people: a local web page shows stimuli and records answers to a file.

stimuli = [
    study.Stimulus(plot.reveal(r, photo), ["dog", "cat"], correct="dog", condition=method, group=name)
    for ...
]
with study.serve(study.Study(stimuli, question="What is it?"), "answers.jsonl") as server:
    print(server.url)
    server.wait()
print(study.summary(study.read("answers.jsonl")))
"""

from jaxlrp.study.answers import Answer, Summary, read, summary
from jaxlrp.study.server import Server, serve
from jaxlrp.study.stimuli import Stimulus, Study

__all__ = [
    "Answer",
    "Server",
    "Stimulus",
    "Study",
    "Summary",
    "read",
    "serve",
    "summary",
]
