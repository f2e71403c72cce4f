"""What stands for SLURM in tests: programs that record what they are given, and do it at once."""

import stat
from pathlib import Path

PROGRAMS = {
    # runs each task of the array in the background, again as often as it was queued again
    "sbatch": """
        [[ -e fails ]] && { echo "sbatch: error: invalid partition specified: x" >&2; exit 1; }
        number=$((4700 + $(ls -d jobs/*.sh 2>/dev/null | wc -l) + 1))
        cp "$1" jobs/$number.sh
        tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
        for task in $(seq 0 "${tasks:-0}"); do
            id=$number${tasks:+_$task}
            touch queue/$id
            (
                export SLURM_JOB_ID=$number SLURM_NTASKS=1 SLURM_JOB_NAME=x SLURM_PROCID=0
                [[ -n $tasks ]] && export SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_ID=$task
                again=1
                while [[ -n $again ]]; do
                    again=
                    ID=$id bash jobs/$number.sh
                    [[ -e again/$id ]] && again=1 && rm again/$id
                done
                rm -f queue/$id
            ) >>out 2>&1 &
        done
        echo "Submitted batch job $number"
    """,
    "srun": """
        echo $$ > pids/$ID
        shift 5  # --unbuffered --output FILE --error FILE
        exec "$@"
    """,
    "squeue": """
        [[ -e silent ]] && rm silent && exit 1
        echo "$@" >> asked
        ls queue
    """,
    "scontrol": """
        echo "$@" >> requeued
        touch again/$2
    """,
}


def install(folder: Path) -> Path:
    """Write the programs into a folder of their own, to be put in front of PATH."""
    state, programs = folder / "slurm_state", folder / "bin"
    for path in (programs, *(state / name for name in ("jobs", "queue", "again", "pids"))):
        path.mkdir(parents=True)
    for name, body in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\ncd {state}\n{body}")
        (programs / name).chmod(stat.S_IRWXU)
    return state
