"""Running a learner's code where it can do nothing but compute.

    grader (trusted: checks, references, seeds)          sandbox (the learner's code)
    ───────────────────────────────────────────          ─────────────────────────────────────
    judge ── proxy ── session ═══ socket ═════════════►  child ── the learner's cells
                         │      JSON + safetensors         ▲
                         └── starts ──► zygote ── fork ────┘
                                        torch and the course imported once,
                                        without the references that are asked for

The two never share an interpreter. What comes back over the socket is rebuilt from a closed list
of plain kinds (`values`), so an object that lies about itself cannot cross. A child is a fork of
the lesson's `zygote`, locked in by the kernel (`lockdown`) before any of the learner's code runs,
and killed with everything that it started.
"""
