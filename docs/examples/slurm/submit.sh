#!/bin/sh
# Quantizes one model with a job array of Slurm:
#
#     SHARDS=8 ./submit.sh STATE OUT MODEL --calib samples/ --scheme w4
#
# STATE is a folder that all nodes see, and so are the others. Behind OUT stand the words of `onnxquant calibrate`. With
# --one-pass among them a first array runs the samples and a second one solves the layers once that is done. Without it
# each task does both side by side, for every stage needs the one before: the tasks have to run at the same time.
# A task that fails is started again with `scontrol requeue JOB_TASK`, and does what is missing. Prints the number of the
# last job.
set -eu

here=$(dirname "$0")
shards=${SHARDS:-4}
STATE=$1 OUT=$2
export STATE OUT
shift 2

case " $* " in
*" --one-pass "*)
    calibrated=$(sbatch --parsable --array="1-$shards" "$here/calibrate.sbatch" "$@")
    solved=$(sbatch --parsable --array="1-$shards" --dependency="afterok:$calibrated" "$here/solve.sbatch")
    ;;
*)
    solved=$(sbatch --parsable --array="1-$shards" "$here/both.sbatch" "$@")
    ;;
esac
sbatch --parsable --dependency="afterok:$solved" "$here/finish.sbatch"
